"""Poses: people's keypoints, read from every dialect of POSE_KEYPOINT, edited and drawn."""
