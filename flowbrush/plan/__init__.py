"""What a recipe will need before it is begun: FLOPs, memory, days."""
