"""Types of sched/post.pyx: it adds post and spawn to SchedulerCore, see sched/run.pyi."""
