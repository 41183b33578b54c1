"""The rotations of a grid on a GPU: slices of any of them, and those near given poses, made where they are used.

Twins of `Grid.fine_rotations` with `slice_matrices`, and of `local_search.local_candidates`; all angles in float64.
"""

from __future__ import annotations

import math

import numpy as np
import torch

from aurefine import euler, healpix
from aurefine.local_search import CUT_OFF
from aurefine.refine.plan import Grid

_ROTATIONS = 1 << 20  # matrices made at a time
_DISTANCES = 1 << 27  # between views and directions held at a time
_ROUNDING = 1e-5  # of a cosine in float32


class DeviceGrid:
    """A `Grid` on a device; rotations are named by their coarse index, int64 tensors there."""

    def __init__(self, grid: Grid, device: torch.device) -> None:
        self.grid, self.device = grid, device
        self._tables: dict[int, torch.Tensor] = {}
        self._psi = self._move(np.deg2rad(grid.psi))
        self._perturbed = self._move(euler.to_matrix([grid.turn] * 3))

    def _move(self, array: np.ndarray) -> torch.Tensor:
        return torch.from_numpy(np.ascontiguousarray(array, dtype=np.float64)).to(self.device)

    def below_half_a_turn(self) -> torch.Tensor:
        """Coarse indices of the whole grid at in-plane angles below 180 degrees."""
        directions = torch.arange(len(self.grid.directions), device=self.device)
        return (directions[:, None] * self.grid.n_psi + torch.arange(self.grid.n_psi // 2, device=self.device)).flatten()

    def _axes(self, oversampling: int) -> torch.Tensor:
        """float64 [directions, 4^oversampling, 2, 3]: first and second row of the rotation at psi = 0 of every child of a direction."""
        if oversampling not in self._tables:
            directions = self.grid.directions
            angles = directions.angles[:, None]
            if oversampling:
                angles = healpix.centres(directions.order + oversampling, healpix.children(directions.pixel, oversampling))
            rot, tilt = self._move(np.deg2rad(angles)).unbind(-1)
            sr, cr, st, ct = rot.sin(), rot.cos(), tilt.sin(), tilt.cos()
            rows = torch.stack([torch.stack([ct * cr, ct * sr, -st], -1), torch.stack([-sr, cr, torch.zeros_like(sr)], -1)], -2)
            self._tables[oversampling] = rows @ self._perturbed
        return self._tables[oversampling]

    def slices(self, coarse: torch.Tensor, oversampling: int, stretch: np.ndarray) -> torch.Tensor:
        """float32 [k * 8^oversampling, 3, 2]: slice matrices of the children of coarse rotations [k]; see `plan.slice_matrices`."""
        axes, n_sub, step = self._axes(oversampling), 2**oversampling, 2 * math.pi / self.grid.n_psi
        offsets = (torch.arange(n_sub, device=self.device, dtype=torch.float64) + 0.5) * step / n_sub - step / 2
        out = torch.empty((len(coarse), 4**oversampling, n_sub, 3, 2), device=self.device)
        at_a_time = max(1, _ROTATIONS >> (3 * oversampling))
        for start in range(0, len(coarse), at_a_time):
            some = coarse[start : start + at_a_time]
            direction = torch.div(some, self.grid.n_psi, rounding_mode="floor")
            psi = (self._psi[some % self.grid.n_psi][:, None] + offsets)[:, None, :, None]
            x, y = axes[direction][:, :, None].unbind(-2)
            a, b = psi.cos() * x + psi.sin() * y, psi.cos() * y - psi.sin() * x
            for column in range(2):
                out[start : start + at_a_time, ..., column] = a * float(stretch[0, column]) + b * float(stretch[1, column])
        return out.view(-1, 3, 2)

    def near(self, angles: np.ndarray) -> tuple[np.ndarray, torch.Tensor, torch.Tensor]:
        """See `Grid.near`: (ptr int64 [n + 1] on the host, coarse index int64, log prior float32)."""
        grid = self.grid
        operators = self._move(grid.mates.operators)
        base = self._move(euler.to_matrix(np.concatenate([grid.directions.angles, np.zeros((len(grid.directions), 1))], axis=1)))
        poses = self._move(euler.to_matrix(np.atleast_2d(np.asarray(angles, float))))
        at_a_time = max(1, _DISTANCES // (len(operators) * len(base)))
        parts = [self._near(poses[start : start + at_a_time], operators, base) for start in range(0, len(poses), at_a_time)]
        count, index, log_prior = (torch.cat([part[k] for part in parts]) for k in range(3))
        return np.concatenate([[0], np.cumsum(count.cpu().numpy())]).astype(np.int64), index, log_prior

    def _near(self, poses: torch.Tensor, operators: torch.Tensor, base: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        """Counts, indices and log priors of some particles' candidates."""
        sigma, n_psi = self.grid.state.sigma_angle, self.grid.n_psi
        mates = (poses[:, None] @ operators).flatten(0, 1)
        mate, direction, tilt = _near_directions(mates, base, len(operators), min(CUT_OFF * sigma, 180.0))
        one, other = base[direction], mates[mate]
        cos, sin = (one[:, 0] * other[:, 0] + one[:, 1] * other[:, 1]).sum(1), (one[:, 1] * other[:, 0] - one[:, 0] * other[:, 1]).sum(1)
        centre, step = torch.rad2deg(torch.atan2(sin, cos)), 360.0 / n_psi
        low, high = torch.floor((centre - CUT_OFF * sigma) / step) + 1, torch.ceil((centre + CUT_OFF * sigma) / step) - 1
        middle = torch.floor(centre / step + 0.5)
        low, high = torch.where(high < low, middle, low), torch.where(high < low, middle, high)
        whole = high - low + 1 >= n_psi  # the whole circle: each angle once, and the short way
        low, count = torch.where(whole, middle - n_psi // 2, low).long(), torch.where(whole, n_psi, high - low + 1).long()
        pair = torch.repeat_interleave(torch.arange(len(count), device=self.device), count)
        turn = low[pair] + torch.arange(len(pair), device=self.device) - (torch.cumsum(count, 0) - count)[pair]
        away = turn * step - centre[pair]
        prior = (-(tilt[pair] ** 2 + away**2) / (2 * sigma * sigma)).float()
        total = len(base) * n_psi
        key = torch.div(mate[pair], len(operators), rounding_mode="floor") * total + direction[pair] * n_psi + turn % n_psi
        return _merged(key, prior, total, len(poses))


def _near_directions(mates: torch.Tensor, base: torch.Tensor, n_mates: int, reach: float) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Pairs (mate, direction, angle in degrees) no further apart than `reach` degrees, and the nearest one of a particle that has none."""
    views, directions = mates[:, 2], base[:, 2]
    cosine = views @ directions.T  # float64: a GPU may round float32 products to TF32, by more than what lies between directions
    mate, direction = torch.nonzero(cosine >= math.cos(math.radians(reach)) - _ROUNDING, as_tuple=True)
    chord = torch.linalg.vector_norm(views[mate] - directions[direction], dim=1)
    near = chord <= 2 * math.sin(math.radians(reach) / 2)
    mate, direction, chord = mate[near], direction[near], chord[near]
    lonely = torch.nonzero(torch.bincount(torch.div(mate, n_mates, rounding_mode="floor"), minlength=len(mates) // n_mates) == 0).squeeze(1)
    if len(lonely):
        alone = views.view(-1, n_mates, 3)[lonely]
        nearest = (alone @ directions.T).flatten(1).argmax(1)
        theirs = lonely * n_mates + torch.div(nearest, len(base), rounding_mode="floor")
        mate, direction = torch.cat([mate, theirs]), torch.cat([direction, nearest % len(base)])
        chord = torch.cat([chord, torch.linalg.vector_norm(views[theirs] - directions[nearest % len(base)], dim=1)])
    return mate, direction, torch.rad2deg(2 * torch.asin((chord / 2).clamp(max=1.0)))


def _merged(key: torch.Tensor, prior: torch.Tensor, total: int, particles: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Counts [particles], indices and normalised log priors: sorted, of what two mates reach the larger prior; key = particle * total + index."""
    key, order = torch.sort(key)
    key, where = torch.unique_consecutive(key, return_inverse=True)
    best = torch.full((len(key),), -torch.inf, device=key.device).scatter_reduce_(0, where, prior[order], "amax")
    owner = torch.div(key, total, rounding_mode="floor")
    top = torch.full((particles,), -torch.inf, device=key.device).scatter_reduce_(0, owner, best, "amax").double()
    weight = torch.zeros(particles, dtype=torch.float64, device=key.device).index_add_(0, owner, torch.exp(best.double() - top[owner]))
    return torch.bincount(owner, minlength=particles), key % total, (best.double() - (top + torch.log(weight))[owner]).float()
