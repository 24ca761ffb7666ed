"""Messages between processes: MessagePack Structs, by direction."""
