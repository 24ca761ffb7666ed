"""Messages between processes: MessagePack Structs, by who exchanges them."""
