import pathlib
import sys

import rows
import torch


class Rows(torch.utils.data.Dataset):
    def __init__(self, path):
        self.path = path

    def __len__(self):
        return 8

    def __getitem__(self, number):
        return torch.tensor(rows.read(self.path)[number])


if __name__ == "__main__":
    torch.manual_seed(0)
    loader = torch.utils.data.DataLoader(
        Rows(sys.argv[1]), batch_size=4, num_workers=2, multiprocessing_context="spawn"
    )
    out = pathlib.Path(sys.argv[2])
    out.mkdir(parents=True, exist_ok=True)
    torch.save(sum(batch.sum() for batch in loader), out / "sum.pt")
