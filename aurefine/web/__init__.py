"""The graphical page, `aurefine gui`: a thin shell over `jobs/` and `project/` (docs/architecture.md, "The page")."""
