################################################################################
# Copyright (c) 2026 ContinualAI.                                              #
# Copyrights licensed under the MIT License.                                   #
# See the accompanying LICENSE file for terms.                                 #
################################################################################

from .anomaly import *
