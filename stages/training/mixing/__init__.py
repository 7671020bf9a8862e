"""What every batch is made of: new text and replayed past, in an order that is a function of seed and step."""
