"""What a run is: its description, its folder, recipes of published results, cards and weights."""
