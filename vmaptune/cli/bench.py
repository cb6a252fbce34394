"""`vmaptune bench`."""

from __future__ import annotations

from typing import Any

import click

from vmaptune.cli import options


@click.command("bench")
@click.option("--task", type=click.Choice(["mlp", "cnn", "gru"]), default="mlp", show_default=True, help="What is trained.")
@click.option("--members", type=click.IntRange(1), default=64, show_default=True, help="Population size N.")
@click.option(
    "--width", type=click.IntRange(1), default=128, show_default=True, help="Units of a hidden layer of the MLP, or of the GRU."
)
@click.option(
    "--batch",
    type=click.IntRange(0),
    default=0,
    help="Examples a step; default: 128 for the MLP, 32 for the CNN, 16 for the GRU.",
)
@click.option("--rounds", type=click.IntRange(1), default=5, show_default=True, help="How often each way is measured.")
@click.option("--scaling/--no-scaling", default=True, show_default=True, help="Also other population sizes.")
@click.option("--overhead/--no-overhead", default=True, show_default=True, help="Also what a whole run costs besides training.")
@options.set_option
@options.json_option
def command(
    task: Any,
    members: int,
    width: int,
    batch: int,
    rounds: int,
    scaling: bool,
    overhead: bool,
    assignments: tuple[str, ...],
    as_json: bool,
) -> None:
    """Measure this machine: vmaptune beside a loop, a scan and a plain vmap.

    All train the same networks on the same batches, in turn. The ceiling is the machine's own: a large matrix product and
    a large copy, measured in the same rounds. Takes a minute or two; an otherwise idle machine gives steadier numbers.

    \b
    vmaptune bench
    vmaptune bench --task cnn --members 16 --json
    vmaptune bench --width 64 --batch 64 --set plan.chunk=4
    """
    from vmaptune.bench import bench
    from vmaptune.cli.output import print_json, print_table

    found = bench(
        task,
        members=members,
        width=width,
        batch_size=batch,
        rounds=rounds,
        assignments=assignments,
        scaling=scaling,
        overhead=overhead,
    )
    if as_json:
        print_json(found)
        return
    about = found["task"]
    click.echo(f"{found['device']}: {about['network']}, batch {about['batch']}, {about['members']} members")
    click.echo(f"plan ({found['plan'].pop('source')}): {', '.join(f'{k} {v}' for k, v in found['plan'].items())}\n")
    rows = [
        (
            row["name"],
            row["member_steps_per_s"],
            *row["spread"],
            row["n"],
            found["ratio"].get(row["name"]),
            row["compile_seconds"],
        )
        for row in found["rows"]
    ]
    columns = ("", "member-steps/s", "slowest", "fastest", "rounds", "vmaptune is x faster", "compile s")
    print_table("Side by side", columns, rows)
    top = found["ceiling"]
    work = f"{top['flops_per_member_step'] / 1e6:,.1f} MFLOP and at least {top['bytes_per_member_step'] / 1e6:,.2f} MB"
    machine = f"{top['flops'] / 1e9:,.0f} GFLOP/s (a large matrix product), {top['bytes_per_s'] / 1e9:,.1f} GB/s (a large copy)"
    click.echo(f"\nceiling: {machine}; a member-step is {work}: vmaptune reaches {top['fraction']:.0%} of it ({top['bound']})")
    if scaling:
        click.echo()
        sizes = [(row["members"], row["us_per_member_step"], *row["spread"], row["n"]) for row in found["scaling"]]
        print_table("Population sizes", ("members", "us a member-step", "fastest", "slowest", "rounds"), sizes)
    if overhead:
        long, short = found["overhead_fraction"], found["overhead_fraction_5_steps"]
        click.echo(f"\na whole run, besides training: {long:.1%} (generations of a second), {short:.1%} (of five steps)")
