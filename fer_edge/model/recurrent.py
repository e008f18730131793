"""The BiLSTM of both levels (section 3.5): over the regions of a face, and over the frames of a window."""

from __future__ import annotations

from torch import Tensor, nn

__all__ = ["BiLSTM"]


class BiLSTM(nn.Module):
    """Bidirectional LSTM (Hochreiter and Schmidhuber 1997; Schuster and Paliwal 1997) with explicit zero states.

    The initial states are given rather than left out, so that in a trace they follow the batch of the input.
    """

    def __init__(self, inputs: int, hidden: int) -> None:
        super().__init__()
        self.lstm = nn.LSTM(inputs, hidden, batch_first=True, bidirectional=True)
        for name, parameter in self.lstm.named_parameters():
            if "bias_ih" in name:  # open forget gates, so that early training carries information across the sequence
                nn.init.zeros_(parameter)
                nn.init.ones_(parameter.data[hidden : 2 * hidden])
            elif "bias_hh" in name:
                nn.init.zeros_(parameter)

    def forward(self, sequence: Tensor) -> Tensor:
        """(N, T, W) -> (N, T, 2 x hidden)."""
        state = sequence.new_zeros(2, sequence.shape[0], self.lstm.hidden_size)
        output: Tensor = self.lstm(sequence, (state, state))[0]
        return output
