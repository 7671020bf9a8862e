"""Operations: how the outside sees the daemon."""
