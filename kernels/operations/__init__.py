"""The operations of an encoder: their protocol, their plain definitions, and the padded way of the reference."""
