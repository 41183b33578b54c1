"""Molecules for simulation: read from an atomic model, or generated to look like proteins to a microscope.

A generated molecule is a set of domains, each filled by a chain of helices, strands and loops of C-alpha atoms with side-chain
pseudo-atoms at protein density, copied by a point group. It has what refinement lives on: a shape of its own, secondary structure,
and no symmetry besides the one asked for.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from scipy.spatial import cKDTree
from scipy.spatial.transform import Rotation

from aurefine import nufft, symmetry
from aurefine.errors import InputError
from aurefine.regular_files import refuse_others

RESIDUE_VOLUME = 133.0  # Angstrom^3 of protein per residue (1.21 Angstrom^3/Da, 110 Da)
BACKBONE_WEIGHT, SIDE_CHAIN_WEIGHT = 30.0, 24.0  # atomic numbers summed over a residue's backbone and over its side chain
ATOM_B = 60.0  # Angstrom^2: a pseudo-atom stands for several atoms
SOLVENT_SHARE, SOLVENT_B = 0.45, 150.0  # vitreous ice hides this share of a protein's low-resolution contrast (flat bulk solvent)


@dataclass(frozen=True)
class Shape:
    """What to generate for a point group: residues per subunit and the shell (Angstrom) in which domains may lie."""

    residues: int
    domains: int
    outer: tuple[float, float, float]
    inner: float = 0.0


SHAPES = {
    "C1": Shape(1600, 8, (72, 55, 48)),
    "C4": Shape(650, 4, (62, 62, 60)),
    "D2": Shape(1023, 5, (92, 70, 50)),
    "O": Shape(175, 1, (62, 62, 62), 38.0),
}


@dataclass(frozen=True)
class Molecule:
    """Points of scattering mass: `positions` [n, 3] (x, y, z) Angstrom about the origin, `weights` [n], `blur` the atoms' own B-factor."""

    positions: np.ndarray
    weights: np.ndarray
    blur: float = 0.0

    @property
    def diameter(self) -> float:
        """Diameter (Angstrom) of the sphere about the origin that holds all of it."""
        return float(2 * np.linalg.norm(self.positions, axis=1).max())

    def moved(self, rotation: np.ndarray, shift: np.ndarray) -> Molecule:
        """Turned by `rotation` [3, 3] (a mirror image is one, too), then moved by `shift` [3] Angstrom."""
        return replace(self, positions=self.positions @ np.asarray(rotation, float).T + np.asarray(shift, float))

    def envelope(self, frequency2: np.ndarray, b_factor: float) -> np.ndarray:
        """Factor on the points' transform at squared frequencies (1/Angstrom^2): atoms' width, B-factor and displaced ice."""
        solvent = 1 - SOLVENT_SHARE * np.exp(-SOLVENT_B * frequency2 / 4)
        return solvent * np.exp(-(b_factor + self.blur) * frequency2 / 4)

    def transforms(self, rotations: np.ndarray, box: int, pixel_size: float, b_factor: float = 0.0) -> np.ndarray:
        """Transforms [k, box, box/2 + 1] complex128 of the projections along `rotations` [k, 3, 3], relative to the image's centre."""
        x, y = nufft.frequency_grid(box, 2)
        envelope = self.envelope((x * x + y * y) / (box * pixel_size) ** 2, b_factor)
        return nufft.transform_of_projections(self.positions, self.weights, rotations, box, pixel_size) * envelope

    def density(self, box: int, pixel_size: float, b_factor: float = 0.0, single: bool = False) -> np.ndarray:
        """Map [box, box, box] float32 whose projections (sums along z) are the simulated images, up to their Nyquist frequency.

        `single`: good to some six digits of the largest value, in half the memory.
        """
        x, y, z = nufft.frequency_grid(box, 3)
        frequency2 = ((x * x + y * y + z * z) / (box * pixel_size) ** 2).astype(np.float32 if single else np.float64)
        transform = nufft.transform_of_points(self.positions, self.weights, box, pixel_size, single)
        transform *= self.envelope(frequency2, b_factor)
        return nufft.to_map(transform).astype(np.float32, copy=False)


def from_model(path: str | Path, centred: bool = True) -> Molecule:
    """An atomic model (mmCIF or PDB; needs the optional package gemmi), every atom weighted by its atomic number.

    The mean position of all atoms becomes the origin, unless `centred` is false; the axes stay those of the file.
    """
    structure = _structure(path)
    structure.remove_waters()
    atoms = [cra.atom for model in list(structure)[:1] for cra in model.all()]
    if not atoms:
        raise InputError(f"{path}: holds no atoms; give an atomic model with coordinates.")
    positions = np.array([atom.pos.tolist() for atom in atoms])
    weights = np.array([atom.element.atomic_number * atom.occ for atom in atoms])
    return Molecule(positions - positions.mean(axis=0) if centred else positions, weights, blur=15.0)


def _structure(path: str | Path) -> Any:
    try:
        refuse_others(path)
        import gemmi

        return gemmi.read_structure(str(path))
    except ImportError:
        raise InputError(f"{path}: reading atomic models needs the package gemmi; install it with `pip install aurefine[model]`.") from None
    except (RuntimeError, ValueError, OSError) as error:
        raise InputError(f"{path}: not a readable mmCIF or PDB file ({error}).") from None


def moved_model(path: str | Path, rotation: np.ndarray, shift: np.ndarray) -> bytes:
    """An atomic model as mmCIF, every atom (waters too) at `rotation @ position + shift` (Angstrom)."""
    import gemmi

    structure = _structure(path)
    for model in structure:
        for cra in model.all():
            cra.atom.pos = gemmi.Position(*(rotation @ np.array(cra.atom.pos.tolist()) + shift))
    text: str = structure.make_mmcif_document().as_string()
    return text.encode()


def generate(point_group: str = "D2", seed: int = 0, shape: Shape | None = None) -> Molecule:
    """A protein-like molecule with exactly the symmetry `point_group`, the same for the same seed.

    Sizes known by heart: D2 like beta-galactosidase (about 180 Angstrom), C1, C4, and O a hollow shell like ferritin.
    Other groups get subunits of 400 residues around a shell with room for them.
    """
    operators = symmetry.point_group(point_group).operators
    shape = shape or SHAPES.get(point_group.upper()) or _shape_for(len(operators))
    rng = np.random.default_rng(seed)
    radius = (3 * shape.residues * RESIDUE_VOLUME / (4 * np.pi * shape.domains)) ** (1 / 3)
    centres = _place_domains(rng, shape, radius, operators)
    sizes = np.diff(np.linspace(0, shape.residues, shape.domains + 1).astype(int))
    chain = np.concatenate([_fill_domain(rng, centre, radius, size) for centre, size in zip(centres, sizes)])
    side = chain + _side_chains(rng, chain)
    positions = np.concatenate([chain, side])
    weights = np.r_[np.full(len(chain), BACKBONE_WEIGHT), rng.uniform(0.3, 1.7, len(side)) * SIDE_CHAIN_WEIGHT]
    positions = np.concatenate([positions @ operator.T for operator in operators])
    weights = np.tile(weights, len(operators))
    if len(operators) == 1:
        positions = positions - np.average(positions, axis=0, weights=weights)
    return Molecule(positions, weights, ATOM_B)


def _shape_for(order: int) -> Shape:
    """A shell with 30 % room to spare around `order` subunits of 400 residues in two domains."""
    outer = (3 * 1.6 * order * 400 * RESIDUE_VOLUME / (4 * np.pi)) ** (1 / 3) + 10
    return Shape(400, 2, (outer, outer, outer), 0.55 * outer if order > 8 else 0.0)


def _place_domains(rng: np.random.Generator, shape: Shape, radius: float, operators: np.ndarray) -> np.ndarray:
    """Domain centres [domains, 3]: within the shell, as close together as spheres of `radius` and their symmetry mates allow."""
    placed: list[np.ndarray] = []
    axes = np.array(shape.outer) - 0.75 * radius
    spacing = 1.75 * radius
    while len(placed) < shape.domains:
        candidates = rng.normal(size=(4000, 3))
        candidates *= (rng.uniform(size=4000) ** (1 / 3) / np.linalg.norm(candidates, axis=1))[:, None]
        candidates = candidates * axes
        distance = np.linalg.norm(candidates, axis=1)
        mates = np.einsum("kij,nj->nki", operators[1:], candidates)
        nearest = np.linalg.norm(mates - candidates[:, None], axis=2).min(axis=1, initial=np.inf)
        if placed:
            others = np.concatenate([np.asarray(placed) @ operator.T for operator in operators])
            nearest = np.minimum(nearest, cKDTree(others).query(candidates)[0])
        fits = (nearest > spacing) & (distance >= shape.inner)
        if not fits.any():
            spacing *= 0.95
            continue
        # Compact but not round: each next domain joins the ones that are there, the first one lies off the symmetry axes.
        score = np.where(fits, np.abs(nearest - spacing) + (0 if placed else rng.uniform(0, 5, 4000)), np.inf)
        placed.append(candidates[np.argmin(score)])
    return np.asarray(placed)


def _segment(rng: np.random.Generator, length: int, kind: int) -> np.ndarray:
    """C-alpha positions [length, 3] of a helix (0), a strand (1) or a loop (2), starting at the origin along z."""
    step = np.arange(length)
    if kind == 0:
        turn = np.deg2rad(100) * step
        return np.stack([2.3 * (np.cos(turn) - 1), 2.3 * np.sin(turn), 1.5 * step], axis=1)
    if kind == 1:
        return np.stack([0.9 * (step % 2), 0.2 * step, 3.3 * step], axis=1)
    walk = np.cumsum(rng.normal(size=(length, 3)) * 1.6 + [0, 0, 2.2], axis=0)
    return walk - walk[0]


def _fill_domain(rng: np.random.Generator, centre: np.ndarray, radius: float, residues: int, tries: int = 60) -> np.ndarray:
    """A chain [residues, 3] of secondary structure, folded into a sphere without clashes by choosing the best of random turns."""
    chain = centre + rng.normal(size=(1, 3)) * radius / 3
    mostly_helix = rng.uniform(0.2, 0.8)
    while len(chain) < residues + 1:
        kind = 2 if rng.uniform() < 0.3 else int(rng.uniform() > mostly_helix)
        longest = max(4, int(1.5 * radius / (1.5, 3.3, 2.5)[kind]))
        length = min((int(rng.integers(8, 20)), int(rng.integers(5, 11)), int(rng.integers(3, 7)))[kind], longest)
        segment = _segment(rng, length + 1, kind)[1:] + [0, 0, 1.0]
        turns = Rotation.random(tries, random_state=rng).as_matrix()
        options = chain[-1] + np.einsum("kij,nj->kni", turns, segment)
        outside = np.clip(np.linalg.norm(options - centre, axis=2) - radius, 0, None)
        nearest = cKDTree(chain).query(options.reshape(-1, 3))[0].reshape(tries, -1)
        clash = np.clip(5.5 - nearest, 0, None)
        chain = np.concatenate([chain, options[np.argmin((outside**2).mean(1) + 1.5 * (clash**2).mean(1))]])
    return chain[1 : residues + 1]


def _side_chains(rng: np.random.Generator, chain: np.ndarray) -> np.ndarray:
    """Offsets [n, 3] of the side chains: away from the neighbours along the chain, 2 to 4 Angstrom long."""
    inward = np.roll(chain, 1, axis=0) + np.roll(chain, -1, axis=0) - 2 * chain
    direction = -inward + rng.normal(size=chain.shape) * 1.0
    direction /= np.linalg.norm(direction, axis=1, keepdims=True)
    return direction * rng.uniform(1.5, 4.0, (len(chain), 1))
