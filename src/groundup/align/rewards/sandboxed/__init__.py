"""Programs that run in separate processes; they import nothing of groundup."""
