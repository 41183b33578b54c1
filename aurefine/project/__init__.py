"""RELION projects: the pipeline file, job directories, and running a job as the next one of the project (ALGORITHM.md 6.9)."""
