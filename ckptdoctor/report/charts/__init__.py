"""Data for the page's drawings: scales, ticks, places. Templates only put them on paper.

Drawings have no fixed width: x is in percent of whatever room there is, y in pixels of a fixed height. So text keeps its
size from a telephone to a wall screen.
"""
