"""What an experienced user looks at before and after a refinement: small checks, each a function that returns warnings.

None of them reads a file or knows a refinement: they take arrays and tables, so that `aurefine refine` and `aurefine check` share them.
"""
