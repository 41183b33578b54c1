#!/usr/bin/env bash
# The way of RELION's beta-galactosidase tutorial with aurefine, on simulated micrographs whose truth is known: extraction at low resolution,
# a first refinement (in the place of the classification), re-extraction, auto-refinement, mask, post-processing, comparison with the truth.
# docs/tutorial.md explains each step.
#
#   examples/tutorial.sh [--small] [--folder FOLDER] [--j THREADS]
#
# The folder (tutorial_output) becomes a RELION project and must not exist. --small takes a minute or two on two cores, the full size some
# minutes, 3 GB of disk and 8 GB of memory.
set -euo pipefail

folder=tutorial_output
threads=$(getconf _NPROCESSORS_ONLN)
small=no
while [ $# -gt 0 ]; do
  case $1 in
    --small) small=yes ;;
    --folder) folder=$2; shift ;;
    --j) threads=$2; shift ;;
    *) sed -n '2,/^set/{/^#/s/^# \{0,1\}//p}' "$0"; [ "$1" = --help ] || [ "$1" = -h ]; exit ;;
  esac
  shift
done

# Micrographs of the tutorial's camera: 0.885 A pixels; boxes of 360 px, scaled to 90 px (3.54 A) at first and to 256 px (1.244 A) at last.
micrographs=(--n 1200 --per_micrograph 100 --angpix 0.885 --micrograph_size 3838,3710 --snr 0.6 --bfactor 60)
box=360 first_box=90 last_box=256 last_pixel=1.2445 detector_pixel=0.885
if [ $small = yes ]; then
  micrographs=(--n 210 --per_micrograph 35 --angpix 1.77 --micrograph_size 1500,1500 --snr 0.8 --bfactor 300)
  box=180 first_box=48 last_box=96 last_pixel=3.31875 detector_pixel=1.77
fi

# The aurefine in the path, or that of `make install`.
PATH=$PATH:$(cd "$(dirname "$0")/.." && pwd)/.venv/bin
if ! command -v aurefine > /dev/null; then
  echo "aurefine is not installed: run \`make install\`, or \`pip install .\`" >&2
  exit 2
fi
step() { printf '\n=== %s\n' "$*"; }
run() { printf '$ aurefine %s\n' "$*"; aurefine "$@"; }

if [ -e "$folder" ]; then
  echo "$folder is there already: remove it, or name another one with --folder" >&2
  exit 2
fi

step "0. Simulated micrographs, with CTF values and picked coordinates"
run simulate --micrographs --o "$folder" --sym D2 "${micrographs[@]}" --box $box --map_box $last_box --ref_resolution 40 --random_seed 1
cd "$folder"

step "1. Extract particles, scaled down for speed"
run run --new_project 5 Extract star_mics=micrographs_ctf.star coords_suffix=autopick.star extract_size=$box do_rescale=Yes rescale=$first_box

step "2. First refinement, at low resolution"
run run Refine3D fn_img=Extract/job001/particles.star fn_ref=reference.mrc ref_correct_greyscale=No ini_high=50 sym_name=D2 \
  particle_diameter=200 auto_faster=Yes nr_threads="$threads" other_args="--random_seed 1"

step "3. Extract the refined particles again, re-centred, at a finer pixel size"
run run Extract star_mics=micrographs_ctf.star do_reextract=Yes fndata_reextract=Refine3D/job002/run_data.star do_recenter=Yes \
  extract_size=$box do_rescale=Yes rescale=$last_box

step "4. Bring the first map to that box and pixel size"
run image_handler --i Refine3D/job002/run_class001.mrc --o Refine3D/job002/run_class001_box$last_box.mrc --rescale_angpix $last_pixel --new_box $last_box

step "5. 3D auto-refine, finer angular sampling faster"
run run Refine3D fn_img=Extract/job003/particles.star fn_ref=Refine3D/job002/run_class001_box$last_box.mrc ref_correct_greyscale=No ini_high=50 \
  sym_name=D2 particle_diameter=200 auto_faster=Yes nr_threads="$threads" other_args="--random_seed 1"
grep Auto Refine3D/job004/run.out

step "6. Mask"
run run MaskCreate --i Refine3D/job004/run_class001.mrc --lowpass 15 --extend_inimask 3 --width_soft_edge 5 --j "$threads"

step "7. Post-processing"
run run PostProcess fn_in=Refine3D/job004/run_half1_class001_unfil.mrc fn_mask=MaskCreate/job005/mask.mrc fn_mtf=mtf.star mtf_angpix=$detector_pixel

step "8. How good is it? The truth is known"
run compare --i Refine3D/job004/run_data.star --truth truth.star --sym D2 --map PostProcess/job006/postprocess.mrc --truth_map truth.mrc \
  --mask_diameter 200 --half_map Refine3D/job004/run_half1_class001_unfil.mrc --mask MaskCreate/job005/mask.mrc --json numbers.json
run report --i Refine3D/job004
run jobs
