"""The import contract of our own: nobody imports behind a package's face."""

from grimp import ImportGraph
from importlinter import Contract, ContractCheck, output


class FacesContract(Contract):
    """What lies in a package is imported from outside through the package alone."""

    type_name = "faces"

    def check(self, graph: ImportGraph, verbose: bool) -> ContractCheck:
        """Find the imports that pass by a face."""
        root = self.session_options["root_packages"][0]
        behind = []
        for importer in sorted(graph.modules):
            for imported in sorted(graph.find_modules_directly_imported_by(importer)):
                parts = imported.split(".")
                packages = (".".join(parts[:k]) for k in range(2, len(parts)))
                for package in packages:
                    if imported.startswith(f"{root}.") and not _within(
                        importer, package
                    ):
                        behind.append((importer, imported, package))
                        break
        return ContractCheck(kept=not behind, metadata={"behind": behind})

    def render_broken_contract(self, check: ContractCheck) -> None:
        """Print the imports that pass by a face."""
        for importer, imported, package in check.metadata["behind"]:
            output.print_error(
                f"{importer} imports {imported}: import from {package} instead."
            )


def _within(module: str, package: str) -> bool:
    """Whether a module is a package or lies in it."""
    return module == package or module.startswith(f"{package}.")
