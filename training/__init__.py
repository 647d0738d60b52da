"""The trainer, standalone and inside the graph: one loop for every recipe.

A run is a recipe (`config`), a frozen base (`bases`), pairs (`data`) and what is trained (`targets`). `planned` and
`encoded` make rows of pairs, `draws` says what is random in a step, `compute` gives its gradient, `optim` takes the
step, and `loop` tells what happens as `events`. `watch` looks at a run between steps, `output` keeps it on the disk,
`planner` counts beforehand what it costs, `report` draws it, `commands` are the command line. `synth` and `tiny` made
the embedded base.
"""
