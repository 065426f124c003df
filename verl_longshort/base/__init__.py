"""Tools without a subject: files and rows, journals, bounded concurrency, progress, stages, requirements."""
