"""Measurements on public data against published figures: each module is a program that ends in one line of JSON; may import everything."""
