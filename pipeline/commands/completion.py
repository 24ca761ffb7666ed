"""`pipeline completion`: what a shell runs to complete the command line."""

import click

from pipeline.options import Command


@click.command(cls=Command, short_help="Prints the completion script of a shell")
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> None:
    """Prints the completion script of a shell.

    For bash: eval "$(pipeline completion bash)" in ~/.bashrc, or write it to
    /usr/share/bash-completion/completions/pipeline. For zsh: write it to a file _pipeline in a folder of $fpath. For
    fish: write it to ~/.config/fish/completions/pipeline.fish.
    """
    from click.shell_completion import get_completion_class

    found = get_completion_class(shell)
    assert found is not None
    root = click.get_current_context().find_root()
    script = found(root.command, {}, "pipeline", "_PIPELINE_COMPLETE")
    # `source()` of bash would start a bash only to learn its version.
    click.echo(script.source_template % script.source_vars())
