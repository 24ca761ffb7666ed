"""Writes the software bill of materials of an environment, CycloneDX 1.6 as JSON, to standard output.

`scripts/release-check` runs it with the packages of an environment that has the wheel and nothing else:
`python scripts/sbom.py SITE-PACKAGES`.
"""

import sys
from importlib.metadata import Distribution, distributions

from cyclonedx.model.bom import Bom
from cyclonedx.model.component import Component, ComponentType
from cyclonedx.model.license import DisjunctiveLicense
from cyclonedx.output.json import JsonV1Dot6
from packageurl import PackageURL

OURS = "iggy-influxdb-pipeline"


def component_of(package: Distribution) -> Component:
    """A package as a component."""
    name, version = package.metadata["Name"], package.version
    license_text = package.metadata.get("License-Expression") or package.metadata.get("License") or ""
    licenses = [DisjunctiveLicense(name=license_text)] if license_text and "\n" not in license_text else []
    url = PackageURL("pypi", name=name.lower().replace("_", "-"), version=version)
    return Component(name=name, version=version, purl=url, bom_ref=str(url), licenses=licenses,
                     type=ComponentType.APPLICATION if name == OURS else ComponentType.LIBRARY)


def main(folder: str) -> None:
    """Prints it."""
    bom = Bom()
    components = {one.name: one for one in map(component_of, distributions(path=[folder]))}
    bom.metadata.component = components.pop(OURS)
    bom.components.update(components.values())
    bom.register_dependency(bom.metadata.component, bom.components)
    print(JsonV1Dot6(bom).output_as_string(indent=2))


if __name__ == "__main__":
    main(sys.argv[1])
