"""Post-processing of a refined map: solvent-corrected FSC, sharpening (`run.py`), local resolution (`local_resolution.py`) (ALGORITHM.md 9.2)."""
