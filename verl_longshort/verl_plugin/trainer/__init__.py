"""What runs in verl's task runner: the trainers, group rewards, replay buffers, checkpoints and exports."""
