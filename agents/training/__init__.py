"""What all training loops share: advantages, rewards, losses, runs, options, ranks."""
