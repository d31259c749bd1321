"""What will make a training hard to repeat, said before it runs; and whether two runs repeat.

``diagnosis`` is the face: one remedy for each finding. ``catalogue`` is what is known to matter, a
table with sources; ``program`` reads the program's text, of which nothing is run. ``copies`` runs
the command in a fresh copy of the working tree; ``twice`` does so until it knows what makes two
runs differ, and what would on another machine.
"""
