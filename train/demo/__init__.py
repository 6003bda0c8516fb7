"""What the demo model learns: text the project writes itself, and the examination it sits at the end."""
