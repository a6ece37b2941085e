"""What stands in the way of a recipe: the machine, the disk, the data; and the mend of each."""
