"""Measurements on the files of a run. A measurement counts and names; it never has an opinion."""
