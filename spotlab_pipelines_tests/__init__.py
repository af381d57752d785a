"""Tests of SpotLab, room by room, and the local AWS they run against."""
