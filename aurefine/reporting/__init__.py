"""The report of a refinement: its history, its curves, the facts of its methods section, a page of paper and of HTML, ChimeraX commands."""
