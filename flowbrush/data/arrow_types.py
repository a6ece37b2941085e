"""What an arrow type is for us: an encoded image, latents, or a text."""

from typing import Any


def is_struct(kind: Any) -> bool:
    """Whether an arrow type is Hugging Face's struct of bytes and path."""
    import pyarrow as pa

    return pa.types.is_struct(kind) and kind.get_field_index("bytes") >= 0


def is_encoded(kind: Any) -> bool:
    """Whether an arrow type is of bytes, or of a struct of them."""
    import pyarrow as pa

    if is_struct(kind):
        return is_encoded(kind.field("bytes").type)
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind)


def is_stored(kind: Any) -> bool:
    """Whether an arrow type may hold latents."""
    import pyarrow as pa

    if isinstance(kind, pa.BaseExtensionType):
        kind = kind.storage_type
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return is_encoded(kind) or (pa.types.is_nested(kind) and not pa.types.is_struct(kind))


def is_text(kind: Any) -> bool:
    import pyarrow as pa

    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return pa.types.is_string(kind) or pa.types.is_large_string(kind)
