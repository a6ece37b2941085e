"""Encode once, train many times: latents and text features as shards."""
