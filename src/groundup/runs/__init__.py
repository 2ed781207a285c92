"""What a run leaves behind: its files, written whole or not at all and checked when read."""
