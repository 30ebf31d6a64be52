"""The config: LiteLLM's file as it is, and our section `pollux:`."""

from server.config.config import CERT_VARIABLE, KEY_VARIABLE, Config, config_of, load_config, parse_config

__all__ = ["CERT_VARIABLE", "KEY_VARIABLE", "Config", "config_of", "load_config", "parse_config"]
