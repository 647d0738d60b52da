"""Training data: pairs in the usual formats, what is made of them, and what is wrong with them."""
