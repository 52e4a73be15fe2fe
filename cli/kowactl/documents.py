"""Documents as YAML has them, JSON included."""

from typing import Any

import yaml


class Loader(yaml.SafeLoader):
    """Plain values. Raises ValueError for a name that is given twice, of which PyYAML takes the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        """Names and values."""
        seen = set[str]()
        for key, _ in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value in seen:
                raise ValueError(f"{key.value} is given twice")
            seen.add(str(key.value))
        return super().construct_mapping(node, deep)
