"""A trained encoder for other libraries: timm, Hugging Face transformers, ONNX."""

from orchestrator.export.encoders import KINDS, ExportedEncoder, encoder_of, export_encoder

__all__ = ["KINDS", "ExportedEncoder", "encoder_of", "export_encoder"]
