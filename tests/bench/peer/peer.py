"""retro-pytorch 0.3.9 as it is, on the CPU: its model, and its own generation loop with neighbours that are given."""
import os
import sys
import types

sys.setdlopenflags(os.RTLD_LAZY)  # libraries of CUDA may be empty stand-ins: see torch_in_python.sh
import torch  # noqa: E402

# It builds indexes with autofaiss, which nothing here calls.
sys.modules["autofaiss"] = types.SimpleNamespace(build_index=None)
from retro_pytorch import RETRO, TrainingWrapper  # noqa: E402
from retro_pytorch.retrieval import EOS_ID  # noqa: E402


def make_model(seed, **settings):
    """With random weights, none of which is trivial; it never ends a text."""
    torch.manual_seed(seed)
    model = RETRO(**settings)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.dim() == 1:
                parameter.add_(0.1 * torch.randn_like(parameter))
        if EOS_ID < model.to_logits.out_features:
            model.to_logits.bias[EOS_ID] = -1e4
    return model.eval()


class GivenNeighbours(TrainingWrapper):
    """The program's wrapper without its documents: `neighbours` [chunks, k, r] are found one after the other."""

    def __init__(self, retro, neighbours):
        torch.nn.Module.__init__(self)
        self.retro, self.chunk_size, self.max_seq_len = retro, retro.chunk_size, retro.seq_len
        self.neighbours, self.found = neighbours, 0

    def fetch_knn_chunks_fn(self, chunks):
        begin, self.found = self.found, self.found + len(chunks)
        return self.neighbours[begin:self.found]
