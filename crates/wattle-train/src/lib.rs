//! Data sets, optimisers, schedules, checkpoints, the training loop, run directories.
