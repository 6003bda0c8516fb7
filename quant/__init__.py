"""Room two: shrink a checkpoint and prove how good the export is."""
