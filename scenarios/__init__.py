"""Worlds to prove the product on: real outcomes in which the value of every choice is known; may import everything."""
