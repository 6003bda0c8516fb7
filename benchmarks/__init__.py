"""Side-by-side measurements that anyone can repeat; their results are committed as tables."""
