"""One trial under Syne Tune: a program that reports."""

from argparse import ArgumentParser

import work
from syne_tune import Reporter


def main():
    parser = ArgumentParser()
    names = ["learning_rate", "weight_decay", "batch_size", "activation", "dropout", "num_dense", "dense_width"]
    for name in names if "digits" in work.SPEC else work.SPACE:
        parser.add_argument(f"--{name}", type=str if name in ("kind", "activation") else float)
    params = vars(parser.parse_known_args()[0])
    reporter = Reporter()

    def report(value, step):
        reporter(epoch=step + 1, val_loss=value)

    if "digits" in work.SPEC:
        work.train_digits(work.digits_conf(params), report)
    else:
        value = work.run(params, report)
        if not work.SPEC.get("steps"):
            report(value, 0)


if __name__ == "__main__":
    main()
