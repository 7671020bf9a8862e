"""The journal: facts and decisions in one order, the only truth; a port with a memory and a SQLite adapter."""
