"""What people look at: the page about a run, pictures, the paper's figures."""
