"""One refinement by many processes: who is who (place), own workers (launch), the shared work (ranks), and the end of it when one fails (watch)."""
