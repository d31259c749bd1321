"""What will make a training hard to repeat, said before it runs; and whether two runs repeat.

``catalogue`` is what is known to matter, a table with sources; ``program`` reads the program's
text, of which nothing is run; ``advice`` has one remedy for each finding. ``copies`` runs the
command in a fresh copy of the working tree; ``twice`` does so until it knows what makes two runs
differ, and what would on another machine. ``diagnosis`` is the face.
"""
